-- Gives a message its place: appends it to the log and to what is pending. Shows nothing to anyone.
--
-- KEYS 4: where the message's id is remembered.
-- ARGV: packed message without its time; ms that ids are remembered; ms and entries that the log keeps at
-- least and at most; offsets that may be ahead of what is durable without a hole; ms that the room is kept
-- after its last use; the epoch that the place is to be in, or nothing for any.

if not sound then
  return rotate()
end

local seen = redis.call('GET', KEYS[4])
if seen then
  -- With `=`: durable, as found at a rotation. Without: assigned; whether it became durable is known in
  -- its own epoch only, and what an earlier epoch assigned and nobody found again was lost.
  local durable, of, offset = string.match(seen, '^(=?)(%S+) (%d+)$')
  if durable == '=' then
    return {'duplicate', of, tonumber(offset), 0}
  elseif of == epoch then
    return {'duplicate', of, tonumber(offset), redis.call('ZSCORE', pending, offset) and 1 or 0}
  end
end

if ARGV[7] ~= '' and epoch ~= ARGV[7] then
  return {'other', epoch}
end

local window, trim_age, max_length = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if head - done >= tonumber(ARGV[5]) then
  return {'busy'}
end

local time = now()
head = head + 1
-- The first write: where memory is short it is refused, and nothing has changed.
redis.call('XADD', log, entry_id(head), 'm', struct.pack('>I8', time) .. ARGV[1])
redis.call('ZADD', pending, head, text(head))
if n_pending == 0 then
  moved = time
end
n_pending = n_pending + 1
redis.call('HSET', keys_of_room, 'head', text(head), 'time', text(time), 'moved', text(moved), 'pending', n_pending)
redis.call('SET', KEYS[4], epoch .. ' ' .. text(head), 'PX', window)
redis.call('PEXPIRE', keys_of_room, ARGV[6])
redis.call('PEXPIRE', log, ARGV[6])
redis.call('PEXPIRE', pending, ARGV[6])

-- Trimming looks at one entry of 16, on one publish of 16: reading an entry copies its message. Offsets are
-- dense, so the length says which is the first. Nothing that is not durable goes.
if head % 16 == 0 then
  local first = head - redis.call('XLEN', log) + 1
  for _ = 1, 16 do
    local last = first + 15
    if last > done then
      break
    end
    local found = redis.call('XRANGE', log, entry_id(last), entry_id(last))[1]
    if found and time - time_of(entry(found)) < trim_age and head - first < max_length then
      break
    end
    first = last + 1
    redis.call('XTRIM', log, 'MINID', entry_id(first))
  end
end

return {'ok', epoch, head, time, done, stalled(time)}
