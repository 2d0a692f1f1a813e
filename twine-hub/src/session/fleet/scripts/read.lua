-- All sessions of a cookie, without their rooms.

return {'ok', now(), redis.call('HGETALL', KEYS[2])}
