-- Saves what attachments have acknowledged, each unless somebody else holds its session by now.
--
-- ARGV: ms that sessions are kept; a version for cookies of which a row changes; then for each: cookie, id, holder,
-- its rooms, empty where it has none and is to go, and 1 where its connection has ended.
--
-- Of a session that was written a moment ago only the rooms are: its time need not be more exact than this.
local EXACT_MS = 60 * 1000

local time, ttl, version = now(), tonumber(ARGV[1]), ARGV[2]
local results = {}
for n = 0, (#ARGV - 2) / 5 - 1 do
  local cookie, id, holder, cursors, ended = unpack(ARGV, 3 + n * 5, 7 + n * 5)
  local rows, rooms = KEYS[2 + n * 2], KEYS[3 + n * 2]
  local row = redis.call('HGET', rows, id)
  local held_by, touched, what
  if row then
    held_by, touched, what = parts(row)
  end
  local result = 'ok'
  if not row then
    result = redis.call('HEXISTS', rows, 'forgotten') == 1 and 'forgotten' or 'gone'
  elseif held_by ~= holder then
    result = 'lost'
  elseif cursors == '' then
    remove(rows, rooms, cookie, id)
    keep(rows, rooms, version, ttl)
  else
    redis.call('HSET', rooms, id, cursors)
    if ended == '1' or time - tonumber(touched) >= EXACT_MS then
      redis.call('HSET', rows, id, row_of(ended == '1' and '-' or holder, time, what))
      redis.call('ZADD', index, time, member(cookie, id))
      keep(rows, rooms, version, ttl)
    end
  end
  results[n + 1] = result
end
return {'ok', results}
