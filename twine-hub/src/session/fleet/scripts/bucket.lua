-- Put before every script: what the sessions of a bucket look like.
--
-- KEYS of every script: 1 the bucket's index, then for each cookie its rows and its rooms.
--
-- A row is HOLDER, the time of the last word of it, and what it is, a line each. HOLDER is the attachment
-- that it is held by, `-` where nobody holds it. Whatever may change who gets which session also changes
-- the `version` of the cookie's rows, so that whoever decides by what it has read knows when that is old.

local index = KEYS[1]

-- Milliseconds since 1970 by this server's clock: the hubs' may differ.
local function now()
  local clock = redis.call('TIME')
  return tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

local function row_of(holder, time, what)
  return string.format('%s\n%.0f\n%s', holder, time, what)
end

-- The holder of a row, its time, and what it is.
local function parts(row)
  return string.match(row, '^([^\n]*)\n(%d+)\n(.*)$')
end

local function member(cookie, id)
  return cookie .. '/' .. id
end

local function remove(rows, rooms, cookie, id)
  redis.call('HDEL', rows, id)
  redis.call('HDEL', rooms, id)
  redis.call('ZREM', index, member(cookie, id))
end

-- Rows that hold nothing but their version are none.
local function keep(rows, rooms, version, ttl)
  redis.call('HSET', rows, 'version', version)
  if redis.call('HLEN', rows) == 1 then
    redis.call('DEL', rows, rooms)
    return
  end
  redis.call('PEXPIRE', rows, ttl)
  redis.call('PEXPIRE', rooms, ttl)
  redis.call('PEXPIRE', index, ttl)
end
