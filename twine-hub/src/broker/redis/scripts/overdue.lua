-- Messages that have been pending for long: whoever assigned them may be gone.
--
-- ARGV: epoch; ms that a message may be pending; entries at most; bytes after which no more are added.

if not sound then
  return rotate()
elseif epoch ~= ARGV[1] then
  return {'other', epoch}
end
local time, age, max_bytes, bytes = now(), tonumber(ARGV[2]), tonumber(ARGV[4]), 0
local found = {}
for _, offset in ipairs(redis.call('ZRANGE', pending, 0, tonumber(ARGV[3]) - 1)) do
  local at = redis.call('XRANGE', log, offset .. '-0', offset .. '-0')[1]
  -- The log was lost: nobody can complete this one any more.
  if not at then
    return rotate()
  end
  local message = entry(at)
  if time - time_of(message) < age or bytes >= max_bytes then
    break
  end
  bytes = bytes + #message
  found[#found + 1] = tonumber(offset)
  found[#found + 1] = message
end
return {'ok', found}
