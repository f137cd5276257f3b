CREATE TABLE feed (id BIGINT PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
CREATE TABLE feed_like (
    feed_id BIGINT NOT NULL REFERENCES feed (id),
    user_id BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (feed_id, user_id)
);
INSERT INTO feed (id) VALUES (1), (2), (3);
