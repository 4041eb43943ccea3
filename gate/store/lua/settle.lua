-- Settlements, counted: kind, id, fence, what became of it, due or why, counts, told. Then records,
-- counted, then the jobs that follow. 0, and nothing happens, if one of the leases is not ours.
local first = tonumber(take())
local rows = {}
for number = 1, first do
  local row = {take(), take(), take(), take(), take(), take(), take()}
  local found = redis.call('HMGET', key('job', row[1], row[2]), 'fence', 'held', 'buried', 'lane')
  if found[1] ~= row[3] or not found[2] or found[3] then
    return 0
  end
  row[8] = found[4]
  rows[number] = row
end
for _, row in ipairs(rows) do
  local kind, id, outcome = row[1], row[2], row[4]
  local job = key('job', kind, id)
  if outcome == 'done' then
    remove(kind, id)
  else
    redis.call('HINCRBY', job, 'attempts', row[6])
    redis.call('HSET', job, 'told', row[7])
    if outcome == 'again' then
      redis.call('HSET', job, 'due', row[5], 'claims', 0)
      redis.call('HDEL', job, 'held')
      redis.call('ZADD', key('due', kind, row[8]), row[5], id)
    else
      bury(kind, id, row[5])
    end
  end
end
keep(tonumber(take()))
while left() do
  insert() -- what follows from a job that was taken is taken, room or not
end
return 1
