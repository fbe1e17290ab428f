-- q11: how many bids each bidder makes in a session, which ends when ten seconds go by without one.
SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(bid PARTITION BY bidder, date_time, INTERVAL '10 seconds') AS b
GROUP BY bidder, window_start, window_end
