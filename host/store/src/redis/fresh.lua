-- For scripts that may make a head: reads it, or makes a new life with nothing in it.

-- What all entries of a journal carry, and those of no other: `life` is not met again, and of one partition.
local function seal_of(key, life)
    return sub(life, 1, 8) .. match(key, '(%d+)%D*$')
end

local function head_or_fresh(key, inc, life)
    local head = read_head(key)
    if head then
        return head
    end
    local prefix = string.sub(key, 1, -2)
    if call('XLEN', prefix .. 'j') > 0 then
        damaged('the head ' .. key .. ' is missing, but its journal is there')
    end
    head = {
        key = key, prefix = prefix, inc = inc, life = life, last = 0, flushed = 0, floor = 0, o = 0, b = 0,
        to = 0, tb = 0, old = 0, dirty = 0, docs = 0, gone = 0,
        w = 0, tw = 0, seal = seal_of(key, life),
    }
    call('HSET', key, 'inc', inc, 'life', life, 's', head.seal, 'n', head_numbers(head))
    return head
end
