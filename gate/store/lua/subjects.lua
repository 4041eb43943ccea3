-- kind. The subjects that jobs wait for.
return redis.call('SMEMBERS', key('subjects', take()))
