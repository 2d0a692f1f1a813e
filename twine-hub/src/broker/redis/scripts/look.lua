-- How far a room is.
--
-- ARGV: ms that the room is kept after its last use.

if not sound then
  return rotate()
end
redis.call('PEXPIRE', keys_of_room, ARGV[1])
if n_pending > 0 then
  redis.call('PEXPIRE', log, ARGV[1])
  redis.call('PEXPIRE', pending, ARGV[1])
end
return {'ok', epoch, done, head, stalled(now()), server}
