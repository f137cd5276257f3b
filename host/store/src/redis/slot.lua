-- Before each script of a cluster: its partition must be on one node, whole. While the slot is on its way, some keys are
-- here and some there, and each alone would look as if it had never been: so a script asks first for two keys that never
-- are. Of a slot that leaves, the node does not answer for a key that is not there; of one that comes, not for several of
-- which one is not.
local place = KEYS[1] and match(KEYS[1], '^[^}]*}')
if place and type(redis.pcall('EXISTS', place, place .. '~')) == 'table' then
    error(redis.error_reply('WEIRMOVING ' .. place .. ' is on its way to another node'))
end
