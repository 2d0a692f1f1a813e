// What a page costs that has no client.
bench.mark("subscribed");
