-- Begins an epoch that was advanced to in the store.
--
-- KEYS 4: the room's channel.
-- ARGV: the server that was to be rotated; epoch; least time of its messages; ms that the room is kept
-- after its last use.

-- Byte by byte: `<` asks the server's locale.
local function is_earlier(a, b)
  for i = 1, math.min(#a, #b) do
    local of_a, of_b = string.byte(a, i), string.byte(b, i)
    if of_a ~= of_b then
      return of_a < of_b
    end
  end
  return #a < #b
end

local wanted = ARGV[2]
if server ~= ARGV[1] then
  return {'server', server}
end
if sound and epoch == wanted then
  return {'ok'}
end
if epoch and not is_earlier(epoch, wanted) then
  return {'later', epoch}
end
local time = text(math.max(now(), tonumber(ARGV[3])))
redis.call('DEL', log, pending, keys_of_room)
redis.call('HSET', keys_of_room, 'epoch', wanted, 'server', server, 'head', 0, 'done', 0, 'time', time,
  'moved', time, 'pending', 0)
redis.call('PEXPIRE', keys_of_room, ARGV[4])
redis.call('SPUBLISH', KEYS[4], 'E' .. struct.pack('>I1', #wanted) .. wanted)
return {'ok'}
