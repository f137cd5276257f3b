-- Reads pairs. KEYS: heads. ARGV: 3 per pair: index of its head in KEYS, target, actor (or nothing).
-- Reply: 3 numbers per pair: code (0 known, 3 missing, 4 cold target, 5 cold pair), active, count.
local heads = {}
for k = 1, #KEYS do
    heads[k] = read_head(KEYS[k]) or { prefix = string.sub(KEYS[k], 1, -2), life = '' }
end
local names = {}
for at = 1, #ARGV, 3 do
    names[#names + 1] = heads[tonumber(ARGV[at])].prefix .. 't:' .. ARGV[at + 1]
end
local values, reply = get_many(names), {}
for at = 1, #ARGV, 3 do
    local head, id, actor = heads[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
    local target = known(values[(at + 2) / 3], head)
    local code, active, count = 0, 0, 0
    if not target then
        code = 4
    elseif target.mode == 'm' then
        code = 3
    else
        count = target.count
        if actor ~= '' then
            if call('ZSCORE', head.prefix .. 'm:' .. id, actor) then
                active = 1
            elseif target.mode == 'h' and call('SISMEMBER', head.prefix .. 'n:' .. id, actor) == 0 then
                code, count = 5, 0
            end
        end
    end
    reply[at], reply[at + 1], reply[at + 2] = code, active, count
end
return reply
