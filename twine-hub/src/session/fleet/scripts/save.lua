-- Saves what attachments have acknowledged, each unless somebody else holds its session by now.
--
-- ARGV: ms that sessions are kept; a version for cookies of which a row changes; then for each: cookie, id,
-- generation, holder, its rooms, empty where it has none and is to go, the save's number, and 1 where its
-- connection has ended.
--
-- Of a session that was written a moment ago only the rooms are: its time need not be more exact than this.
local EXACT_MS = 60 * 1000

local time, ttl, version = now(), tonumber(ARGV[1]), ARGV[2]
local results = {}
for n = 0, (#ARGV - 2) / 7 - 1 do
  local cookie, id, generation, holder, cursors, number, ended = unpack(ARGV, 3 + n * 7, 9 + n * 7)
  local rows, rooms = KEYS[2 + n * 2], KEYS[3 + n * 2]
  generation, number, ended = tonumber(generation), tonumber(number), ended == '1'
  local row = redis.call('HGET', rows, id)
  local of_row, held_by, touched, what = parts(row or '')
  local result = 'ok'
  if not of_row or of_row < generation then
    -- It was lost, is damaged, or of an earlier state: whoever saves knows all of it.
    result = redis.call('HEXISTS', rows, 'forgotten') == 1 and 'forgotten' or 'gone'
  elseif not may_write(row, generation, holder, ended) then
    result = 'lost'
  elseif is_overtaken(rooms, id, generation, number) then
    -- A later one has come already.
  elseif cursors == '' then
    remove(rows, rooms, cookie, id)
    keep(rows, rooms, version, ttl)
  else
    set_rooms(rooms, id, cursors, generation, number, ttl)
    if ended and held_by ~= '-' or time - touched >= EXACT_MS then
      redis.call('HSET', rows, id, row_of(generation, ended and '-' or holder, time, what))
      redis.call('ZADD', index, time, member(cookie, id))
      keep(rows, rooms, version, ttl)
    end
  end
  results[n + 1] = result
end
return {'ok', results}
