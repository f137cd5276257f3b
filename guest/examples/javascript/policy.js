// One-way likes, as guest/examples/one-way-likes, in JavaScript: a like stays, and one actor may try five times a minute.
//
// Enums are strings, options are undefined or a value, 64-bit integers are BigInt, ids are { tag: 'int', val: 7n } or
// { tag: 'text', val: 'bo' }. Names of the WIT are in camel case. How to build it: guest/README.md, "JavaScript".

const limit = { burst: 5, periodMs: 60_000 };
const give = { whenAbsent: 'add', whenPresent: 'keep', limit };
const takeBack = { whenAbsent: 'keep', whenPresent: 'deny' };

export const toggle = {
  decide(kind, nowMs, batch) {
    return batch.map(({ verb }) => (verb === 'clear' ? takeBack : give));
  },
};
