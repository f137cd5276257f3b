-- The application's own tables in the demo: what you would have already.
CREATE TABLE IF NOT EXISTS feed (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL,
    like_count INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS feed_like (
    feed_id INTEGER NOT NULL REFERENCES feed (id),
    user_id INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (feed_id, user_id)
) WITHOUT ROWID;
INSERT INTO feed (id, content)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1000)
SELECT n, 'Post number ' || n FROM number WHERE NOT EXISTS (SELECT 1 FROM feed);
