-- Versions of cached reads. KEYS: the hash. ARGV: fields. Reply: what each holds; false where it is not there.
return call('HMGET', KEYS[1], unpack(ARGV))
