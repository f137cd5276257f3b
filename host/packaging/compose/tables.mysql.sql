CREATE TABLE feed (id BIGINT PRIMARY KEY, like_count BIGINT NOT NULL DEFAULT 0);
CREATE TABLE feed_like (
    feed_id BIGINT NOT NULL,
    user_id BIGINT NOT NULL,
    created_at DATETIME(3) NOT NULL,
    PRIMARY KEY (feed_id, user_id),
    FOREIGN KEY (feed_id) REFERENCES feed (id)
);
INSERT INTO feed (id) VALUES (1), (2), (3);
