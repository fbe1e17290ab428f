-- q7: the highest bids of each ten seconds.
SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
JOIN (
    SELECT window_start, window_end, max(price) AS highest
    FROM TUMBLE(bid, date_time, INTERVAL '10 seconds') AS b
    GROUP BY window_start, window_end
) AS m ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.highest
