-- Gives keys of one slot other names, where nothing has these. KEYS: from, to, from, to, and so on. Reply: how many.
local renamed = 0
for k = 1, #KEYS, 2 do
    if call('EXISTS', KEYS[k]) == 1 then
        renamed = renamed + call('RENAMENX', KEYS[k], KEYS[k + 1])
    end
end
return renamed
