-- What a policy module keeps. KEYS: the keys. Reply: what is there, in order; false where there is nothing.
return get_many(KEYS)
