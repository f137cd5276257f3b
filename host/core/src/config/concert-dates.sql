SELECT d.id, d.starts_at AS "startsAt", d.hall, count(s.id) AS "seatsFree"
FROM concert_date d LEFT JOIN seat s ON s.schedule_id = d.id AND s.state = 'free'
WHERE d.concert_id = :concert
GROUP BY d.id, d.starts_at, d.hall
ORDER BY d.starts_at
