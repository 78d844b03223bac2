// Keeps timers, worker threads, children and files busy, and checks that nothing is lost or doubled. Every round that was right is a
// line in /tmp/rounds, a mistake one in /tmp/wrong.
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { spawn } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');

if (!isMainThread) {
  parentPort.on('message', ({ id, n }) => {
    let sum = 0;
    for (let i = 0; i <= n; i++) sum += i;
    parentPort.postMessage({ id, sum });
  });
} else {
  const wrong = (what) => fs.appendFileSync('/tmp/wrong', what + '\n');
  process.on('uncaughtException', (e) => wrong(String(e.stack)));

  const waiting = new Map();
  const workers = Array.from({ length: 3 }, () => {
    const w = new Worker(__filename);
    w.on('message', ({ id, sum }) => { waiting.get(id)(sum); waiting.delete(id); });
    w.on('exit', (code) => wrong(`a worker ended with ${code}`));
    return w;
  });
  let id = 0;
  const sum = (n) => new Promise((resolve) => {
    waiting.set(++id, resolve);
    workers[id % workers.length].postMessage({ id, n });
  });

  const cat = spawn('/bin/cat');
  cat.on('exit', (code, signal) => wrong(`cat ended with ${code} ${signal}`));
  let echoed = '';
  cat.stdout.on('data', (d) => { echoed += d; });
  const echo = (text) => new Promise((resolve) => {
    cat.stdin.write(text + '\n');
    const look = () => {
      if (!echoed.includes('\n')) return setTimeout(look, 1);
      const at = echoed.indexOf('\n');
      resolve(echoed.slice(0, at));
      echoed = echoed.slice(at + 1);
    };
    look();
  });

  const digest = () => new Promise((resolve, reject) =>
    crypto.pbkdf2('secret', 'salt', 1000, 16, 'sha256', (err, key) => err ? reject(err) : resolve(key.toString('hex'))));
  let first;

  let rounds = 0;
  const round = async () => {
    const n = 1000 + rounds % 1000;
    const begin = process.hrtime.bigint();
    const [a, text, key] = await Promise.all([sum(n), echo('round ' + rounds), digest()]);
    first ??= key;
    if (a !== n * (n + 1) / 2) wrong(`sum of ${n} is ${a}`);
    if (text !== 'round ' + rounds) wrong(`echo of ${rounds} is ${text}`);
    if (key !== first) wrong(`digest ${key}`);
    if (process.hrtime.bigint() < begin) wrong('time runs backwards');
    fs.writeFileSync('/tmp/rounds.new', String(++rounds));
    fs.renameSync('/tmp/rounds.new', '/tmp/rounds');
    setTimeout(round, 2);
  };
  let ticks = 0;
  setInterval(() => { ticks++; }, 10);
  round();
}
