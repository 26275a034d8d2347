// The reference: xterm.js without a browser. Reads {name: base64} from stdin, prints {name: cells}.
// usage: reference.mjs NODE_MODULES

import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';
import { cells } from './cells.mjs';

const modules = pathToFileURL(`${process.argv[2]}/`);
const { Terminal } = await import(`${modules}@xterm/headless/lib-headless/xterm-headless.mjs`);
Buffer.poolSize = 0; // the addon takes a Buffer of its data to start where its ArrayBuffer does
const addon = await import(`${modules}@xterm/addon-unicode-graphemes/lib/addon-unicode-graphemes.mjs`);

/** @param {string} base64 */
async function shown(base64) {
  const terminal = new Terminal({ allowProposedApi: true, cols: 80, rows: 24, logLevel: 'off', scrollback: 10_000 });
  terminal.loadAddon(new addon.UnicodeGraphemesAddon());
  await new Promise((done) => terminal.write(Buffer.from(base64, 'base64'), () => done(undefined)));
  return cells(terminal);
}

const corpus = JSON.parse(await text(process.stdin));
const all = await Promise.all(Object.entries(corpus).map(async ([name, base64]) => [name, await shown(base64)]));
process.stdout.write(JSON.stringify(Object.fromEntries(all)));
