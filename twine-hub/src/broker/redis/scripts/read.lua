-- Durable messages after an offset, as far as the log still has them: dense, in order, never past `done`.
--
-- ARGV: epoch; offset to read after; entries at most; bytes after which no more are added.

if not sound then
  return rotate()
elseif epoch ~= ARGV[1] then
  return {'other', epoch}
end
local at, max_entries, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first, messages, bytes = 0, {}, 0
while at < done and #messages < max_entries and bytes < max_bytes do
  local page = redis.call('XRANGE', log, entry_id(at + 1), entry_id(done), 'COUNT', 16)
  if #page == 0 then
    break
  end
  for _, found in ipairs(page) do
    local message, offset = entry(found)
    if first == 0 then
      first = offset
    elseif offset ~= at + 1 then
      return {'ok', first, messages}
    end
    messages[#messages + 1] = message
    at, bytes = offset, bytes + #message
    if #messages >= max_entries or bytes >= max_bytes then
      break
    end
  end
end
return {'ok', first, messages}
