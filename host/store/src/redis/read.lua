-- Reads pairs. KEYS: heads. ARGV: 3 per pair: index of its head in KEYS, target, actor (or nothing).
-- Reply: 3 numbers per pair: code (0 known, 3 missing, 4 cold target, 5 cold pair), active, count.
local heads = {}
for k = 1, #KEYS do
    heads[k] = read_head(KEYS[k]) or { prefix = string.sub(KEYS[k], 1, -2), life = '' }
end
local reply = {}
for at = 1, #ARGV, 3 do
    local head, actor = heads[tonumber(ARGV[at])], ARGV[at + 2]
    local key = head.prefix .. 't:' .. ARGV[at + 1]
    -- The field '' twice where no actor is asked for.
    local found = call('HMGET', key, '', actor)
    local code, active, count = 4, 0, 0
    if is_known(found[1], head) then
        local mode, _, _, _, known_count = read_meta(found[1])
        local since = actor ~= '' and found[2]
        if mode == 'm' then
            code = 3
        elseif mode == 'p' then
            -- What is pending is asked for by `documents`.
            code = 4
        elseif mode == 'h' and actor ~= '' and not since then
            code = 5
        else
            code, count = 0, known_count
            active = since and since ~= '-' and 1 or 0
        end
    end
    reply[at], reply[at + 1], reply[at + 2] = code, active, count
end
return reply
