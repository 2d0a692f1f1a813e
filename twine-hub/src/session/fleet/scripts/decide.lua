-- Does what was decided by what had been read, unless that has changed meanwhile.
--
-- ARGV: the version that was read, empty where there was none; the next one; ms that sessions are kept; how
-- many the bucket may have; the cookie; the session whose rooms are wanted, if any; then changes:
--   put ID HOLDER WHAT          a session that is there gets this row
--   add ID HOLDER WHAT ROOMS    a session begins
--   end ID                      nobody holds it any more
--   del ID                      it is no more

local rows, rooms = KEYS[2], KEYS[3]
local ttl, max, cookie, wanted = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
if (redis.call('HGET', rows, 'version') or '') ~= ARGV[1] then
  return {'stale'}
end
local time = now()

-- Makes room in the bucket for one more: what was not heard of for longest goes, unless somebody holds it.
-- Gives back how many went, nothing where none can.
local function make_room()
  redis.call('ZREMRANGEBYSCORE', index, '-inf', time - ttl)
  local n = 0
  while redis.call('ZCARD', index) >= max do
    local has_gone = false
    for _, oldest in ipairs(redis.call('ZRANGE', index, 0, 15)) do
      local of, id = string.match(oldest, '^(%x+)/(.*)$')
      local its_rows = index .. ':' .. of
      local row = redis.call('HGET', its_rows, id)
      if not row or string.sub(row, 1, 2) == '-\n' then
        remove(its_rows, its_rows .. ':rooms', of, id)
        if row then
          keep(its_rows, its_rows .. ':rooms', ARGV[2], ttl)
          n = n + 1
        end
        has_gone = true
        break
      end
    end
    if not has_gone then
      return nil
    end
  end
  return n
end

local n_evicted = 0
local at = 7
while at <= #ARGV do
  local change, id = ARGV[at], ARGV[at + 1]
  if change == 'put' then
    redis.call('HSET', rows, id, row_of(ARGV[at + 2], time, ARGV[at + 3]))
    redis.call('ZADD', index, time, member(cookie, id))
    at = at + 4
  elseif change == 'add' then
    -- First of all changes, for nothing may be done where there is no place.
    if redis.call('HEXISTS', rows, 'forgotten') == 1 then
      return {'forgotten'}
    end
    local n = make_room()
    if not n then
      return {'full'}
    end
    n_evicted = n_evicted + n
    redis.call('HSET', rows, id, row_of(ARGV[at + 2], time, ARGV[at + 3]))
    redis.call('HSET', rooms, id, ARGV[at + 4])
    redis.call('ZADD', index, time, member(cookie, id))
    at = at + 5
  elseif change == 'end' then
    local row = redis.call('HGET', rows, id)
    if row then
      local _, _, what = parts(row)
      redis.call('HSET', rows, id, row_of('-', time, what))
    end
    at = at + 2
  else
    remove(rows, rooms, cookie, id)
    at = at + 2
  end
end
keep(rows, rooms, ARGV[2], ttl)
return {'ok', n_evicted, wanted ~= '' and redis.call('HGET', rooms, wanted) or ''}
