// Reads addresses from standard input, so many at once, and prints what `ask` says of each.
import { createInterface } from 'node:readline';

export function answer(ask) {
  const atOnce = Number(process.argv[2] ?? 1);
  const waiting = [];
  let running = 0;
  const next = () => {
    while (running < atOnce && waiting.length) {
      const email = waiting.shift();
      running += 1;
      const started = performance.now();
      ask(email)
        .catch((error) => ({ said: 'unknown', why: String(error) }))
        .then((found) => {
          console.log(JSON.stringify({ email, ...found, ms: performance.now() - started }));
          running -= 1;
          next();
        });
    }
  };
  createInterface({ input: process.stdin }).on('line', (email) => {
    waiting.push(email);
    next();
  });
  console.log('ready');
}
