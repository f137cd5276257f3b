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
CREATE TABLE IF NOT EXISTS video (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    view_count INTEGER NOT NULL DEFAULT 0,
    like_count INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS video_like (
    video_id INTEGER NOT NULL REFERENCES video (id),
    user_id INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (video_id, user_id)
) WITHOUT ROWID;
INSERT INTO video (id, title)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1000)
SELECT n, 'Video number ' || n FROM number WHERE NOT EXISTS (SELECT 1 FROM video);
CREATE TABLE IF NOT EXISTS playlist (
    id TEXT NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    title TEXT NOT NULL,
    description TEXT,
    created_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS playlist_of_user ON playlist (user_id, created_at, id);
CREATE TABLE IF NOT EXISTS playlist_track (
    playlist_id TEXT NOT NULL REFERENCES playlist (id),
    position INTEGER NOT NULL,
    title TEXT NOT NULL,
    seconds INTEGER,
    PRIMARY KEY (playlist_id, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notification_setting (
    member_id INTEGER PRIMARY KEY,
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    social BOOLEAN NOT NULL DEFAULT TRUE,
    event BOOLEAN NOT NULL DEFAULT TRUE,
    marketing BOOLEAN NOT NULL DEFAULT FALSE,
    quiet_from INTEGER NOT NULL DEFAULT 0,
    quiet_until INTEGER NOT NULL DEFAULT 0,
    app_version TEXT NOT NULL DEFAULT ''
);
-- Members 1 to 10,000: every 10th has switched all off, every 4th social, every 5th event, every 3rd wants marketing.
INSERT INTO notification_setting (member_id, enabled, social, event, marketing, app_version)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 10000)
SELECT n, n % 10 <> 0, n % 4 <> 0, n % 5 <> 0, n % 3 = 0, '2.' || (n % 7) || '.0'
FROM number WHERE NOT EXISTS (SELECT 1 FROM notification_setting);
CREATE TABLE IF NOT EXISTS concert_date (
    id INTEGER PRIMARY KEY,
    concert_id INTEGER NOT NULL,
    starts_at TEXT NOT NULL,
    hall TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS concert_date_of_concert ON concert_date (concert_id, starts_at);
INSERT INTO concert_date (id, concert_id, starts_at, hall)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 20)
SELECT n, (n + 3) / 4, '2027-05-' || printf('%02d', n) || 'T19:30:00Z', 'Hall ' || ((n - 1) % 4 + 1)
FROM number WHERE NOT EXISTS (SELECT 1 FROM concert_date);
CREATE TABLE IF NOT EXISTS seat (
    id INTEGER PRIMARY KEY,
    schedule_id INTEGER NOT NULL REFERENCES concert_date (id),
    number INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'free',
    UNIQUE (schedule_id, number)
);
INSERT INTO seat (schedule_id, number)
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 50)
SELECT d.id, n FROM concert_date d, number WHERE NOT EXISTS (SELECT 1 FROM seat);
