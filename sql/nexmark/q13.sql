-- q13: bids with what a small table knows of their auction.
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid AS b
JOIN (SELECT key, 'value ' || key::text AS value FROM generate_series(0, 9999) AS side(key)) AS s
    ON b.auction % 10000 = s.key
