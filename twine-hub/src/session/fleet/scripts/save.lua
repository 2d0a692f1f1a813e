-- Saves what attachments have acknowledged, each unless somebody else holds its session by now.
--
-- ARGV: ms that sessions are kept; a version for those that change hands; then for each: cookie, id, holder,
-- its rooms, empty where it has none and is to go, and 1 where its connection has ended.

local time, ttl, version = now(), tonumber(ARGV[1]), ARGV[2]
local results = {}
for n = 0, (#ARGV - 2) / 5 - 1 do
  local cookie, id, holder, cursors, ended = unpack(ARGV, 3 + n * 5, 7 + n * 5)
  local rows, rooms = KEYS[2 + n * 2], KEYS[3 + n * 2]
  local row = redis.call('HGET', rows, id)
  if not row then
    results[n + 1] = redis.call('HEXISTS', rows, 'forgotten') == 1 and 'forgotten' or 'gone'
  else
    local held_by, what = parts(row)
    if held_by ~= holder then
      results[n + 1] = 'lost'
    else
      results[n + 1] = 'ok'
      local now_version = redis.call('HGET', rows, 'version')
      if cursors == '' then
        remove(rows, rooms, cookie, id)
        now_version = version
      else
        if ended == '1' then
          holder, now_version = '-', version
        end
        redis.call('HSET', rooms, id, cursors)
        redis.call('HSET', rows, id, row_of(holder, time, what))
        redis.call('ZADD', index, time, member(cookie, id))
      end
      keep(rows, rooms, now_version or version, ttl)
    end
  end
end
return {'ok', results}
