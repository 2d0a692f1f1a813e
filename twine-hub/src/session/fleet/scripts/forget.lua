-- Removes all sessions of a cookie, and tells all hubs. For a while it is known that it was so: a hub that did
-- not hear of it must not take them for lost, and put them back.
--
-- ARGV: ms that it is known; a version; the cookie; ms that it is known where there were none, for one may be
-- on its way.

local rows, rooms = KEYS[2], KEYS[3]
local n, was_known = 0, 0
for _, id in ipairs(redis.call('HKEYS', rows)) do
  if id == 'forgotten' then
    was_known = redis.call('PTTL', rows)
  elseif id ~= 'version' then
    redis.call('ZREM', index, member(ARGV[3], id))
    n = n + 1
  end
end
redis.call('DEL', rows, rooms)
redis.call('HSET', rows, 'version', ARGV[2], 'forgotten', '1')
redis.call('PEXPIRE', rows, math.max(was_known, tonumber(n > 0 and ARGV[1] or ARGV[4])))
redis.call('SPUBLISH', index, ARGV[3])
return {'ok'}
