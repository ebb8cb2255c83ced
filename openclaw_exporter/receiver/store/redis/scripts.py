"""What has to happen at once in Redis, as Lua scripts. All keys of one call have one hash tag.

Effects are replicated, not scripts, so `TIME` may be asked. No script does more than a few milliseconds of
work.
"""

from __future__ import annotations

from typing import Final

COMMIT: Final = """
-- Compare and set: each node for itself, as long as it is what the receiver took it for.
-- KEYS: nodes, changes, outbox, recent; then the older arrivals of those nodes that need them
-- ARGV: how many nodes; the listening time (ms) before which arrivals are too old to keep; for each node:
--       id, revision expected ('': none), new state ('': none, a revision alone: forget it), new arrivals (of
--       one size); for each key of older arrivals: index of its node, newest arrival expected ('': any,
--       '-': none); then the events: index of their node, event
-- The newest arrivals of a node stand behind its revision in `recent`, all nodes' in one command; where its
-- key is given they go from there to the older ones.
-- Lua hashes every byte of every string: states must not be put together or read here.
-- Returns those that were something else: index, state that is there or ''
local SIZE, FIELDS, FIRST, LISTS, LIFE = 73, 4, 3, 5, 14400
local count, before = tonumber(ARGV[1]), tonumber(ARGV[2])
local ids, lists, newest = {}, {}, {}
for i = 1, count do ids[i] = ARGV[FIRST + FIELDS * (i - 1)] end
local rest = FIRST + FIELDS * count
for k = LISTS, #KEYS do
  local i = tonumber(ARGV[rest])
  lists[i], newest[i] = KEYS[k], ARGV[rest + 1]
  rest = rest + 2
end

local function keep(seen, records)
  local length = redis.call('RPUSH', seen, records)
  redis.call('EXPIRE', seen, LIFE)
  if length % 4 ~= 0 then return end
  -- A replay leaves many small blocks, which become too old at once.
  for _ = 1, 8 do
    local old = 0
    for _, block in ipairs(redis.call('LRANGE', seen, 0, 7)) do
      -- When the last one of the block was heard.
      local a, b, c, d, e, f = string.byte(block, 3 - SIZE - 1, 8 - SIZE - 1)
      if ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f >= before then break end
      old = old + 1
    end
    if old > 0 then redis.call('LPOP', seen, old) end
    if old < 8 then return end
  end
end

local present = redis.call('HMGET', KEYS[4], unpack(ids))
local differ, stored, states, recent, gone, changed, ended = {}, {}, {}, {}, {}, {}, {}
for i = 1, count do
  local at = FIRST + FIELDS * (i - 1)
  local id, expected, state, arrivals, seen = ids[i], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], lists[i]
  local old = present[i] or ''
  local kept = string.sub(old, 9)
  local is_same = string.sub(old, 1, 8) == expected
  if is_same and seen and newest[i] ~= '' then
    local found = kept ~= '' and kept or redis.call('LINDEX', seen, -1) or '-'
    is_same = string.sub(found, -SIZE) == newest[i]
  end
  if is_same then
    stored[i] = true
    if #state == 8 then
      gone[#gone + 1] = id
      ended[#ended + 1] = id
      ended[#ended + 1] = state
      redis.call('UNLINK', seen)
    elseif state ~= '' or expected ~= '' then
      if seen and kept ~= '' and arrivals ~= '' then
        keep(seen, kept)
        kept = ''
      end
      local revision = expected
      if state ~= '' then
        revision = string.sub(state, 1, 8)
        states[#states + 1] = id
        states[#states + 1] = state
        changed[#changed + 1] = id
        changed[#changed + 1] = revision
      end
      recent[#recent + 1] = id
      recent[#recent + 1] = revision .. kept .. arrivals
    elseif arrivals ~= '' then
      keep(seen, arrivals)
    end
  else
    local there = redis.call('HGET', KEYS[1], id)
    if not there then
      -- Somebody has removed it by hand.
      redis.call('HDEL', KEYS[4], id)
    elseif old == '' then
      redis.call('HSET', KEYS[4], id, string.sub(there, 1, 8))
    end
    differ[#differ + 1] = i
    differ[#differ + 1] = there or ''
  end
end
if #states > 0 then redis.call('HSET', KEYS[1], unpack(states)) end
if #recent > 0 then redis.call('HSET', KEYS[4], unpack(recent)) end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
  redis.call('HDEL', KEYS[4], unpack(gone))
end
local entry = {}
if #changed > 0 then entry = {'changed', table.concat(changed)} end
if #ended > 0 then
  entry[#entry + 1] = 'forgotten'
  entry[#entry + 1] = table.concat(ended)
end
if #entry > 0 then redis.call('XADD', KEYS[2], '*', unpack(entry)) end
for i = rest, #ARGV, 2 do
  if stored[tonumber(ARGV[i])] then redis.call('XADD', KEYS[3], '*', 'event', ARGV[i + 1]) end
end
return differ
"""

ARRIVALS: Final = """
-- Read the arrivals of nodes.
-- KEYS: recent; then for each node its older arrivals; ARGV: for each node its id
-- Returns for each: the newest arrivals, in one string; the older ones, some in each string
local recent, found = redis.call('HMGET', KEYS[1], unpack(ARGV)), {}
for i = 1, #ARGV do
  found[i] = {string.sub(recent[i] or '', 9), redis.call('LRANGE', KEYS[i + 1], 0, -1)}
end
return found
"""

CONFIRM: Final = """
-- Look whether a node's newest arrival is what was read, maybe of another server; that is a write, so that
-- replicas can be waited for.
-- KEYS: recent, the node's older arrivals, mark; ARGV: its id, the newest arrival expected
-- Returns 1, or 0 where it is not
local kept = string.sub(redis.call('HGET', KEYS[1], ARGV[1]) or '', 9)
local found = kept ~= '' and kept or redis.call('LINDEX', KEYS[2], -1) or '-'
if string.sub(found, -#ARGV[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[3], 1)
return 1
"""

ENTER: Final = """
-- Make what all receivers share, where it is not there.
-- KEYS: clock; ARGV: a run's name, partitions, format, now (ms; '': Redis' own)
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('HSETNX', KEYS[1], 'run', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'partitions', ARGV[2], 'format', ARGV[3], 'ms', 0, 'interruption', 0,
    'at', string.format('%d', now))
end
return redis.call('HMGET', KEYS[1], 'run', 'partitions', 'format')
"""

CLOCK: Final = """
-- Let listening time pass, and give the lease on what one receiver does for all.
-- KEYS: clock
-- ARGV: who; now (ms; '': Redis' own); 'hears', 'returns' (hears again) or 'deaf';
--       listening time (ms) and interruption that the receiver knows of; length of the lease (ms; 0: it wants
--       none, -1: it gives it up)
-- Returns run, listening time (ms), interruption, who has the lease; nothing where there is no clock
local is = redis.call('HMGET', KEYS[1], 'run', 'ms', 'interruption', 'at', 'leader', 'until', 'whole')
if not is[1] then return {} end
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- A fail-over may have lost the last moments.
local ms = math.max(tonumber(is[2]), tonumber(ARGV[4]))
local interruption = math.max(tonumber(is[3]), tonumber(ARGV[5]))
local at = tonumber(is[4])
if ARGV[3] ~= 'deaf' then
  local passed = now - at
  if passed < 0 or passed > 5000 or (ARGV[3] == 'returns' and passed > 1000) then
    interruption = interruption + 1
  else
    ms = ms + passed
  end
  at = now
end
local leader, ends, lease, whole = is[5] or '', tonumber(is[6] or 0), tonumber(ARGV[6]), is[7]
local hears = ARGV[3] == 'deaf' and '0' or '1'
-- Its length tells one that was given by a clock that has gone back since.
if ends <= now or ends - now > 60000 then leader = '' end
-- One that does not reach everything leads as long as nobody else does.
if lease > 0 and (leader == '' or leader == ARGV[1] or whole < hears) then
  leader, ends, whole = ARGV[1], now + lease, hears
elseif lease < 0 and leader == ARGV[1] then
  leader, ends = '', 0
end
redis.call('HSET', KEYS[1], 'ms', string.format('%d', ms), 'interruption', interruption,
  'at', string.format('%d', at), 'leader', leader, 'until', string.format('%d', ends),
  'whole', whole or '0')
return {is[1], string.format('%d', ms), interruption, leader}
"""

MOVE: Final = """
-- Append a partition's events to the one numbered log, if nobody else did.
-- KEYS: positions, log; ARGV: a run's name, partition, its position expected and new, how many events are
-- kept, the greatest number that is known, the events
-- Returns the position that is there now
local at = redis.call('HGET', KEYS[1], ARGV[2]) or '0-0'
if at ~= ARGV[3] then return at end
redis.call('HSETNX', KEYS[1], 'run', ARGV[1])
-- A fail-over may have lost the last ones: readers have read them, and their numbers are not given again.
if tonumber(ARGV[6]) > tonumber(redis.call('HGET', KEYS[1], 'number') or 0) then
  redis.call('HSET', KEYS[1], 'number', ARGV[6])
end
for i = 7, #ARGV do
  local number = redis.call('HINCRBY', KEYS[1], 'number', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], string.format('%d-0', number), 'event', ARGV[i])
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
return ARGV[4]
"""

TRIM: Final = """
-- Forget changes that every receiver has read.
-- KEYS: changes; ARGV: their age in ms
local time = redis.call('TIME')
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%d', time[1] * 1000 - ARGV[1]))
"""

RIGHTS: Final = """
-- Do once all that the other scripts do: a right that is missing would end one of them half-way.
-- KEYS: one that is free, and is so again
local key = KEYS[1]
local steps = {
  {'TIME'}, {'UNLINK', key},
  {'SET', key, 1}, {'UNLINK', key},
  {'HSETNX', key, 'number', 1}, {'HSET', key, 'number', 1}, {'HINCRBY', key, 'number', 1},
  {'HGET', key, 'number'}, {'HMGET', key, 'number'}, {'HDEL', key, 'number'},
  {'RPUSH', key, 1, 2, 3}, {'EXPIRE', key, 60}, {'LINDEX', key, 0}, {'LRANGE', key, 0, 0}, {'LPOP', key, 1},
  {'UNLINK', key},
  {'XADD', key, '*', 'number', 1}, {'XTRIM', key, 'MINID', 0}, {'UNLINK', key},
}
for _, step in ipairs(steps) do
  local answer = redis.pcall(unpack(step))
  -- Redis 7.0 does not say itself which command it was.
  if type(answer) == 'table' and answer.err then
    redis.pcall('UNLINK', key)
    return redis.error_reply('ERR ' .. step[1] .. ': ' .. answer.err)
  end
end
return 1
"""

ALL: Final = {
    "rights": RIGHTS,
    "commit": COMMIT,
    "arrivals": ARRIVALS,
    "confirm": CONFIRM,
    "enter": ENTER,
    "clock": CLOCK,
    "move": MOVE,
    "trim": TRIM,
}
