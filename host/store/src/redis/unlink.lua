-- Deletes keys of one slot. KEYS: these. Reply: how many there were.
local gone = 0
for k = 1, #KEYS do
    gone = gone + call('UNLINK', KEYS[k])
end
return gone
