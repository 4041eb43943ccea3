-- Records, counted; then jobs. How many of the jobs' lanes had room.
keep(tonumber(take()))
local taken = 0
while left() do
  if redis.call('ZCARD', key('due', ARGV[at + 1], ARGV[at + 3])) < LANE_MOST then
    insert()
    taken = taken + 1
  else
    at = at + JOB_FIELDS
  end
end
return taken
