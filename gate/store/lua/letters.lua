-- kind, and the rank of the last one that is wanted. Dead letters, the newest first.
local kind, last = take(), take()
local letters = {}
for _, id in ipairs(redis.call('ZREVRANGE', key('letters', kind), 0, last)) do
  local row = redis.call('HMGET', key('job', kind, id), 'lane', 'made', 'attempts', 'buried',
    'told')
  table.insert(row, 1, id)
  table.insert(letters, row)
end
return letters
