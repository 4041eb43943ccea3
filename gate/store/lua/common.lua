-- What the scripts beside this file share; each is loaded behind it (gate/store/calls.py).
--
-- A job is a hash, `job:KIND:ID`, and stands in these sets while it is alive:
--   due:KIND:LANE      by when it is due; a lease puts that off to its own end
--   expires:KIND       by when it becomes a dead letter
--   about:KIND:SUBJECT the jobs of one subject
--   subjects:KIND      its subject
-- as a dead letter in these:
--   letters:KIND       by when it was made
--   dead:KIND:SUBJECT  the letters of one subject
-- and always in made:KIND and forgotten:KIND, by those times; `kinds` and `lanes:KIND` name what
-- there is. Times are passed on as they were written, for Lua prints fewer digits.

local prefix, at = KEYS[1], 0

local function take()
  at = at + 1
  return ARGV[at]
end

local function left()
  return at < #ARGV
end

local function key(...)
  return prefix .. table.concat({...}, ':')
end

local function enter(kind, id, lane, subject, due, expires)
  redis.call('ZADD', key('due', kind, lane), due, id)
  redis.call('ZADD', key('expires', kind), expires, id)
  redis.call('SADD', key('about', kind, subject), id)
  redis.call('SADD', key('subjects', kind), subject)
end

local function leave(kind, id, lane, subject)
  redis.call('ZREM', key('due', kind, lane), id)
  redis.call('ZREM', key('expires', kind), id)
  redis.call('SREM', key('about', kind, subject), id)
  if redis.call('EXISTS', key('about', kind, subject)) == 0 then
    redis.call('SREM', key('subjects', kind), subject)
  end
end

-- Takes the nine fields of a job from the arguments; one whose id is there already stays as it is.
local function insert()
  local kind, id, lane, subject, payload = take(), take(), take(), take(), take()
  local due, made, expires, forgotten = take(), take(), take(), take()
  local job = key('job', kind, id)
  if redis.call('EXISTS', job) == 1 then
    return
  end
  redis.call('HSET', job, 'lane', lane, 'subject', subject, 'payload', payload, 'due', due,
    'made', made, 'expires', expires, 'forgotten', forgotten,
    'attempts', 0, 'claims', 0, 'fence', 0, 'told', '')
  redis.call('ZADD', key('made', kind), made, id)
  redis.call('ZADD', key('forgotten', kind), forgotten, id)
  redis.call('SADD', key('kinds'), kind)
  redis.call('SADD', key('lanes', kind), lane)
  enter(kind, id, lane, subject, due, expires)
end

local function bury(kind, id, why)
  local job = key('job', kind, id)
  local found = redis.call('HMGET', job, 'lane', 'subject', 'made')
  redis.call('HSET', job, 'buried', why)
  redis.call('HDEL', job, 'held')
  leave(kind, id, found[1], found[2])
  redis.call('ZADD', key('letters', kind), found[3], id)
  redis.call('SADD', key('dead', kind, found[2]), id)
end

local function remove(kind, id)
  local job = key('job', kind, id)
  local found = redis.call('HMGET', job, 'lane', 'subject', 'buried')
  if not found[1] then
    return
  end
  if found[3] then
    redis.call('ZREM', key('letters', kind), id)
    redis.call('SREM', key('dead', kind, found[2]), id)
  else
    leave(kind, id, found[1], found[2])
  end
  redis.call('DEL', job)
  redis.call('ZREM', key('made', kind), id)
  redis.call('ZREM', key('forgotten', kind), id)
end

-- What waits for one subject and is nobody's, appended to `leases`.
local function lease(kind, subject, now, ends, leases)
  local taken = 0
  for _, id in ipairs(redis.call('SMEMBERS', key('about', kind, subject))) do
    local job = key('job', kind, id)
    local found = redis.call('HMGET', job, 'held', 'due', 'claims')
    if not found[1] or tonumber(found[2]) <= tonumber(now) then
      if tonumber(found[3]) >= POISON then
        redis.call('HSET', job, 'told', '')
        bury(kind, id, WORN_OUT)
      elseif taken < TOGETHER_MOST then
        taken = taken + 1
        redis.call('HSET', job, 'held', found[1] or found[2], 'due', ends)
        redis.call('HINCRBY', job, 'fence', 1)
        redis.call('HINCRBY', job, 'claims', 1)
        local row = redis.call('HMGET', job, 'lane', 'subject', 'payload', 'due', 'made',
          'expires', 'forgotten', 'attempts', 'fence')
        redis.call('ZADD', key('due', kind, row[1]), ends, id)
        table.insert(row, 1, id)
        table.insert(leases, row)
      end
    end
  end
end

-- Takes so many records from the arguments: key, what to keep, for how many milliseconds.
local function keep(count)
  for _ = 1, count do
    local record, value, lasts = key('r', take()), take(), take()
    if tonumber(lasts) > 0 then
      redis.call('SET', record, value, 'PX', lasts)
    else
      redis.call('DEL', record)
    end
  end
end
