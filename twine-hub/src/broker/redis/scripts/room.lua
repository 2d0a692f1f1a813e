-- Put before every script: who this server is, and what it knows of the room.
--
-- KEYS of every script: 1 the room's hash, 2 its log, 3 its pending offsets.
--
-- A room belongs to the server that its epoch was installed on, by replication id: a server that starts,
-- with its data or without, or that becomes master has another one, and may lack what was assigned last.
-- It is read here and not handed in, for a caller's copy may be stale either way; and from INFO, for no
-- other command names it and what a script could remember outlives a failover. That costs 2 to 3 of the
-- about 30 microseconds of CPU that Redis 7.0 spends on a publish of 128 bytes.

local keys_of_room, log, pending = KEYS[1], KEYS[2], KEYS[3]

local replication = redis.call('INFO', 'replication')
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this server is a replica')
end
local server = string.match(replication, 'master_replid:(%w+)')

local room = redis.call('HMGET', keys_of_room, 'epoch', 'server', 'head', 'done', 'time', 'moved', 'pending')
local epoch = room[1]
local head, done = tonumber(room[3]), tonumber(room[4])
-- moved: when `done` moved last, or when pending was last empty. n_pending: offsets that should be pending.
local moved, n_pending = tonumber(room[6]), tonumber(room[7])

-- A pending set that was evicted, or that is not the one this hash was written with, would make messages
-- look durable that are not.
local sound = epoch and room[2] == server and redis.call('ZCARD', pending) == n_pending

local function rotate()
  return {'rotate', epoch or '', head or 0, server}
end

-- Numbers as text: tostring would round what is above 10^14.
local function text(number)
  return string.format('%.0f', number)
end

local function entry_id(offset)
  return text(offset) .. '-0'
end

-- The packed message of an entry that XRANGE found, and its offset.
local function entry(found)
  return found[2][2], tonumber(string.match(found[1], '^%d+'))
end

-- A packed message starts with its time.
local function time_of(message)
  return (struct.unpack('>I8', message))
end

-- Milliseconds since 1970 by this server's clock, but never before the room's last message.
local function now()
  local clock = redis.call('TIME')
  return math.max(tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000), tonumber(room[5] or 0))
end

-- For how long `done` has stood still though messages wait to become durable, in milliseconds.
local function stalled(time)
  return n_pending > 0 and time - moved or 0
end
