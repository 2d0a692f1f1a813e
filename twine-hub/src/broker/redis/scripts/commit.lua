-- Says that messages are durable; what is so without a hole before it is shown to the hubs, in order.
--
-- KEYS 4: the room's channel.
-- ARGV: epoch; ms that the log is kept once nothing is pending; offsets that are durable.

if not sound or epoch ~= ARGV[1] then
  return {'rotated'}
end

local CHUNK_ENTRIES, CHUNK_BYTES = 256, 512 * 1024
-- More than this in one go is not sent: the hubs read it, each at its own pace.
local SENT_BYTES = 4 * 1024 * 1024

if #ARGV > 2 then
  redis.call('ZREM', pending, unpack(ARGV, 3))
end
n_pending = redis.call('ZCARD', pending)
local lowest = redis.call('ZRANGE', pending, 0, 0)[1]
local now_done = lowest and tonumber(lowest) - 1 or head
if n_pending == 0 then
  redis.call('PEXPIRE', log, ARGV[2])
end
if now_done <= done then
  redis.call('HSET', keys_of_room, 'pending', n_pending)
  return {'ok', done}
end
redis.call('HSET', keys_of_room, 'pending', n_pending, 'done', text(now_done), 'moved', text(now()))

local channel = KEYS[4]
if redis.call('PUBSUB', 'SHARDNUMSUB', channel)[2] == 0 then
  return {'ok', now_done}
end

local header = struct.pack('>I1', #epoch) .. epoch
local sent, at, chunk, bytes, total = done, done, {}, 0, 0
local function send()
  if at > sent then
    redis.call('SPUBLISH', channel, 'M' .. header .. struct.pack('>I8I8', sent, at) .. table.concat(chunk))
    sent, chunk, bytes = at, {}, 0
  end
end
while at < now_done and total < SENT_BYTES do
  local page = redis.call('XRANGE', log, entry_id(at + 1), entry_id(now_done), 'COUNT', 64)
  local dense = #page > 0
  for _, found in ipairs(page) do
    local message, offset = entry(found)
    if offset ~= at + 1 then
      dense = false
      break
    end
    chunk[#chunk + 1] = struct.pack('>I4', #message) .. message
    at, bytes, total = offset, bytes + #message, total + #message
    if #chunk >= CHUNK_ENTRIES or bytes >= CHUNK_BYTES then
      send()
    end
  end
  if not dense then
    break
  end
end
send()
if at < now_done then
  redis.call('SPUBLISH', channel, 'L' .. header .. struct.pack('>I8', now_done))
end
return {'ok', now_done}
