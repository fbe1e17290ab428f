-- q5: the auctions with the most bids in each of the hopping windows of ten seconds, every two seconds.
SELECT auction, num, window_start, window_end
FROM (
    SELECT auction, window_start, window_end, count(*) AS num,
        rank() OVER (PARTITION BY window_start, window_end ORDER BY count(*) DESC) AS place
    FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds') AS b
    GROUP BY auction, window_start, window_end
) AS counted
WHERE place = 1
