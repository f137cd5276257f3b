SELECT id, number, state FROM seat WHERE schedule_id = :schedule ORDER BY number
