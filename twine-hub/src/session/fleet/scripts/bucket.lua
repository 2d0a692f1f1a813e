-- Put before every script: what the sessions of a bucket look like.
--
-- KEYS of every script: 1 the bucket's index, which is also its channel, then for each cookie its rows and
-- its rooms. What is reached besides has the same tag, and so is in the same slot.
--
-- A row is a line each of: GENERATION HOLDER, the time of the last word of it, and what it is. Each attachment
-- of a session is one generation later than the one before. HOLDER is a hub and its ticket, `-` where nobody
-- holds the session any more. Whatever may change who gets which session also changes the `version` of the
-- cookie's rows, so that whoever decides by what it has read knows when that is old. Beside a session's rooms
-- is the number of the save that they are of, for a save that was held up may come after a later one.

local index = KEYS[1]

-- Milliseconds since 1970 by this server's clock: the hubs' may differ.
local function now()
  local clock = redis.call('TIME')
  return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

local function row_of(generation, holder, time, what)
  return string.format('%.0f %s\n%.0f\n%s', generation, holder, time, what)
end

-- Generation, holder and time of a row, and what it is; nothing where it is damaged.
local function parts(row)
  local generation, holder, time, what = string.match(row, '^(%d+) ([^\n]*)\n(%d+)\n(.*)$')
  return tonumber(generation), holder, tonumber(time), what
end

-- Whether an attachment may write a row: it is the one that holds it, or ended it; or a later one, and Redis
-- has gone back to an earlier state.
local function may_write(row, generation, holder, has_ended)
  local of_row, held_by = parts(row)
  if not of_row or of_row < generation then
    return true
  end
  return of_row == generation and (held_by == holder or held_by == '-' and has_ended)
end

local function member(cookie, id)
  return cookie .. '/' .. id
end

local function set_rooms(rooms, id, cursors, generation, number, ttl)
  local mark = string.format('%.0f %.0f', generation, number)
  if redis.call('HSET', rooms, id, cursors, id .. '/save', mark) == 2 then
    redis.call('PEXPIRE', rooms, ttl)
  end
end

-- Whether a later save of the same attachment has come already.
local function is_overtaken(rooms, id, generation, number)
  local mark = redis.call('HGET', rooms, id .. '/save')
  if not mark then
    return false
  end
  local of, last = string.match(mark, '^(%d+) (%d+)$')
  return tonumber(of) == generation and tonumber(last) > number
end

local function remove(rows, rooms, cookie, id)
  redis.call('HDEL', rows, id)
  redis.call('HDEL', rooms, id, id .. '/save')
  redis.call('ZREM', index, member(cookie, id))
end

-- Rows that hold nothing but their version are none.
local function keep(rows, rooms, version, ttl)
  redis.call('HSET', rows, 'version', version)
  if redis.call('HEXISTS', rows, 'forgotten') == 1 then
    return
  end
  if redis.call('HLEN', rows) == 1 then
    redis.call('DEL', rows, rooms)
    return
  end
  redis.call('PEXPIRE', rows, ttl)
  redis.call('PEXPIRE', rooms, ttl)
  redis.call('PEXPIRE', index, ttl)
end
