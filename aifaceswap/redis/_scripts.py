"""The rate limiter's rules as Lua scripts: each runs as one step, with the server's clock.

Keys of one scope, in the order of `KEYS`; all expire by themselves:

1. permits: ids of requests, with the moment at which each permit is free again
2. window: what is known of the service's window, the day's count and the pauses
3. waiting: ids of those who wait to create or read, with the moment at which they came
4. polls: the same for polls
5. asked: when each of them has asked for the last time
6. cancelled: ids that were cancelled, maybe before their request to acquire has arrived
"""

from __future__ import annotations

from aifaceswap.redis._connection import Script

KEYS = ("permits", "window", "waiting", "polls", "asked", "cancelled")

_CLOCK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function keep(key, seconds) redis.call('EXPIRE', key, math.ceil(seconds)) end
-- A script that begins by removing something is not rejected when the server's memory is full.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
"""

# Returns {1} with a permit, {0, ms, code} to ask again later, {-1, ms, code} if that is too late.
# The code is empty while the headers of a first request are missing.
# Those who create and read go first; every fourth permit is for a poll that waits.
ACQUIRE = Script(
    _CLOCK
    + """
local permits, window, waiting, polls, asked, cancelled = unpack(KEYS)
local id, purpose = ARGV[1], ARGV[2]
local requests, per, lease = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local per_day, max_wait, is_unsure = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == '1'
local queue = purpose == 'poll' and polls or waiting

local known = {}
local names = {'until_' .. purpose, 'code_' .. purpose, 'day', 'today', 'limit', 'others',
    'others_until', 'known_until', 'is_unknown', 'probe', 'probe_until', 'since_poll'}
for index, value in ipairs(redis.call('HMGET', window, unpack(names))) do
    known[names[index]] = value or nil
end
local function number(name) return tonumber(known[name] or '0') end

local function leave(one)
    for _, key in ipairs({waiting, polls, asked}) do redis.call('ZREM', key, one) end
end
local function answer(seconds, code, is_queued)
    if is_queued and seconds <= max_wait then
        redis.call('ZADD', queue, 'NX', now, id)
        redis.call('ZADD', asked, now, id)
        keep(queue, 60)
        keep(asked, 60)
    else
        leave(id)
    end
    return {seconds <= max_wait and 0 or -1, math.ceil(seconds * 1000), code}
end

if redis.call('ZSCORE', permits, id) then return {1, 0, ''} end
if redis.call('ZSCORE', cancelled, id) then return {0, 1000, ''} end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', asked, '-inf', now - 1.5)) do leave(gone) end

if number('until_' .. purpose) > now then
    return answer(number('until_' .. purpose) - now, known['code_' .. purpose], false)
end
local day = math.floor(now / 86400)
local today = number('day') == day and number('today') or 0
if per_day > 0 and today >= per_day then
    return answer((day + 1) * 86400 - now, 'rate_limited_daily', false)
end

local others = number('others')
local is_unknown = is_unsure or known.is_unknown or number('known_until') <= now
if others > 0 and number('others_until') <= now then
    others, is_unknown = 0, true
    redis.call('HDEL', window, 'others')
end
if is_unknown then
    redis.call('HSET', window, 'is_unknown', 1)
    keep(window, 172800)
end
-- One request goes first, and its headers teach the rest: 2 seconds at most. Nobody is rejected
-- for that alone.
if known.probe and number('probe_until') > now and max_wait >= 0.05 then
    return answer(0.05, '', true)
end

local used = redis.call('ZCARD', permits)
local capacity = requests
if known.limit then capacity = math.min(requests, number('limit') - others) end
local is_polls_turn = number('since_poll') >= 3 and redis.call('ZCARD', polls) > 0
local ahead = redis.call('ZRANK', queue, id) or redis.call('ZCARD', queue)
if purpose == 'poll' then
    if not is_polls_turn then ahead = ahead + redis.call('ZCARD', waiting) end
elseif is_polls_turn then
    ahead = ahead + 1
end

if used + ahead < capacity then
    leave(id)
    redis.call('ZADD', permits, now + lease + per, id)
    keep(permits, lease + per)
    redis.call('HSET', window, 'day', day, 'today', today + 1,
        'since_poll', purpose == 'poll' and 0 or number('since_poll') + 1)
    if is_unknown then
        redis.call('HDEL', window, 'is_unknown')
        redis.call('HSET', window, 'known_until', now + 2 * per)
        if requests >= 10 then
            redis.call('HSET', window, 'probe', id, 'probe_until', now + 2)
        end
    end
    keep(window, 172800)
    return {1, 0, ''}
end

-- Seconds, at the least, until so many permits are free; one in flight takes a window more.
local function freed_in(missing)
    if missing <= 0 then return 0 end
    if missing > used then return per * (1 + math.floor((missing - used - 1) / requests)) end
    local frees = redis.call('ZRANGE', permits, missing - 1, missing - 1, 'WITHSCORES')[2]
    return math.min(tonumber(frees) - now, per)
end
local delay = freed_in(used + ahead + 1 - capacity)
if others > 0 then delay = math.min(delay, number('others_until') - now) end
delay = math.max(delay, freed_in(used + ahead + 1 - requests), 0.005)
return answer(delay, 'rate_limited', true)
"""
)

# The response has come: the permit is free one window from now. Its headers count the requests
# of all who use the key; they only ever lower what may be sent.
SETTLE = Script(
    _CLOCK
    + """
local permits, window = KEYS[1], KEYS[2]
local requests, per, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, remaining, reset = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
redis.call('ZADD', permits, now + per, ARGV[1])
keep(permits, lease + per)
redis.call('HSET', window, 'known_until', now + 2 * per)
keep(window, 172800)
local known = redis.call('HMGET', window, 'probe', 'limit', 'last_limit')
if known[1] == ARGV[1] then redis.call('HDEL', window, 'probe') end
if not limit or limit < 1 then return 1 end

redis.call('HSET', window, 'last_limit', limit)
-- The limits of other windows (a day's, a path's) come and go between responses.
local is_ours = not known[2] or limit == requests
    or limit == tonumber(known[2]) or limit == tonumber(known[3])
local ends = reset or now + per
if not is_ours or ends < now - per or ends > now + per + 1 then return 1 end
local counted, settled = limit - remaining, redis.call('ZCOUNT', permits, '-inf', now + per)
local others = counted > redis.call('ZCARD', permits) and counted - settled or 0
redis.call('HSET', window, 'limit', limit, 'others', others, 'others_until', ends)
return 1
"""
)

# The request was never sent.
CANCEL = Script(
    _CLOCK
    + """
local id, per, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for index = 3, 5 do redis.call('ZREM', KEYS[index], id) end
local frees = redis.call('ZSCORE', KEYS[1], id)
if frees then
    redis.call('ZREM', KEYS[1], id)
    local day = math.floor((tonumber(frees) - lease - per) / 86400)
    if day == tonumber(redis.call('HGET', KEYS[2], 'day')) then
        redis.call('HINCRBY', KEYS[2], 'today', -1)
    end
else
    redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now)
    redis.call('ZADD', KEYS[6], now + lease, id)
    keep(KEYS[6], lease)
end
if redis.call('HGET', KEYS[2], 'probe') == id then
    redis.call('HDEL', KEYS[2], 'probe')
    redis.call('HSET', KEYS[2], 'is_unknown', 1)
end
return 1
"""
)

# A 429: nothing is sent for a while. Nothing is known of the window after it: the service says
# when to come back, not what is free.
PENALIZE = Script(
    _CLOCK
    + """
local window, ends, code, is_for_all = KEYS[2], now + tonumber(ARGV[1]), ARGV[2], ARGV[4]
for index = 3, #ARGV do
    local paused = redis.call('HGET', window, 'until_' .. ARGV[index])
    if ends > tonumber(paused or '0') then
        redis.call('HSET', window, 'until_' .. ARGV[index], ends, 'code_' .. ARGV[index], code)
    end
end
if is_for_all then
    redis.call('HSET', window, 'is_unknown', 1)
    local others_until = redis.call('HGET', window, 'others_until')
    if others_until and tonumber(others_until) > ends then
        redis.call('HSET', window, 'others_until', ends)
    end
end
keep(window, 172800)
return 1
"""
)
