-- Removes all sessions of a cookie, and gives back their rows. For a while it is known that it was so: a hub
-- that did not hear of it must not take them for lost, and put them back.
--
-- ARGV: ms that it is known; a version; the cookie; ms that it is known where there were none, for one may
-- be on its way.

local rows, rooms = KEYS[2], KEYS[3]
local all = redis.call('HGETALL', rows)
local is_known = ARGV[4]
if #all > 0 then
  is_known = ARGV[1]
  for i = 1, #all, 2 do
    redis.call('ZREM', index, member(ARGV[3], all[i]))
  end
  redis.call('DEL', rows, rooms)
end
redis.call('HSET', rows, 'version', ARGV[2], 'forgotten', '1')
redis.call('PEXPIRE', rows, is_known)
return {'ok', all}
