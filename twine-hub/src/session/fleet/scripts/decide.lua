-- Does what was decided by what had been read, unless that has changed meanwhile.
--
-- ARGV: the version that was read, empty where there was none; when that was; the next version; ms that
-- sessions are kept; ms after which a holder that says nothing is none; how many the bucket may have; the
-- cookie; the session whose rooms are wanted, if any; then changes:
--   put ID GENERATION HOLDER WHAT                      a session that is there gets this row
--   add ID GENERATION HOLDER ENDED WHAT ROOMS NUMBER   a session begins, or is put back
--   end ID                                             nobody holds it any more
--   del ID                                             it is no more

local rows, rooms = KEYS[2], KEYS[3]
local ttl, silent, max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local cookie, wanted = ARGV[7], ARGV[8]
local time = now()
-- What was held up for so long may be of before a mark that has expired since.
local TOO_LATE_MS = 30 * 1000

if (redis.call('HGET', rows, 'version') or '') ~= ARGV[1] or time - tonumber(ARGV[2]) > TOO_LATE_MS then
  return {'stale'}
end

-- Makes room in the bucket for one more: what was not heard of for longest goes, unless somebody holds it.
-- Gives back how many went, nothing where none can.
local function make_room()
  local PAGE, MOST = 16, 128
  redis.call('ZREMRANGEBYSCORE', index, '-inf', time - ttl)
  local n, from = 0, 0
  while redis.call('ZCARD', index) >= max do
    local has_gone = false
    for _, oldest in ipairs(redis.call('ZRANGE', index, from, from + PAGE - 1)) do
      local of, id = string.match(oldest, '^(%x+)/(.*)$')
      local its_rows = index .. ':' .. of
      local row = redis.call('HGET', its_rows, id)
      local _, held_by, touched = parts(row or '')
      if not touched or held_by == '-' or time - touched > silent then
        remove(its_rows, its_rows .. ':rooms', of, id)
        if row then
          keep(its_rows, its_rows .. ':rooms', ARGV[3], ttl)
          n = n + 1
        end
        has_gone = true
        break
      end
    end
    if not has_gone then
      from = from + PAGE
      if from >= MOST then
        return nil
      end
    end
  end
  return n
end

local n_evicted = 0
local at = 9
while at <= #ARGV do
  local change, id = ARGV[at], ARGV[at + 1]
  if change == 'put' then
    local generation, holder, what = tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
    redis.call('HSET', rows, id, row_of(generation, holder, time, what))
    redis.call('ZADD', index, time, member(cookie, id))
    at = at + 5
  elseif change == 'add' then
    -- First of all changes, for nothing may be done where it can't be.
    local generation, holder, has_ended = tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4] == '1'
    local what, cursors, number = ARGV[at + 5], ARGV[at + 6], tonumber(ARGV[at + 7])
    if redis.call('HEXISTS', rows, 'forgotten') == 1 then
      return {'forgotten'}
    end
    local row = redis.call('HGET', rows, id)
    if row then
      if not may_write(row, generation, holder, has_ended) then
        return {'taken'}
      end
    else
      local n = make_room()
      if not n then
        return {'full'}
      end
      n_evicted = n
    end
    redis.call('HSET', rows, id, row_of(generation, has_ended and '-' or holder, time, what))
    set_rooms(rooms, id, cursors, generation, number, ttl)
    redis.call('ZADD', index, time, member(cookie, id))
    at = at + 8
  elseif change == 'end' then
    local generation, _, _, what = parts(redis.call('HGET', rows, id) or '')
    if generation then
      redis.call('HSET', rows, id, row_of(generation, '-', time, what))
      redis.call('ZADD', index, time, member(cookie, id))
    end
    at = at + 2
  else
    remove(rows, rooms, cookie, id)
    at = at + 2
  end
end
keep(rows, rooms, ARGV[3], ttl)
return {'ok', n_evicted, wanted ~= '' and redis.call('HGET', rooms, wanted) or ''}
