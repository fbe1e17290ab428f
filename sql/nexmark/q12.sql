-- q12: how many bids each bidder makes in ten seconds; of event time, where the original has the time of processing.
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
GROUP BY bidder, window_start, window_end
