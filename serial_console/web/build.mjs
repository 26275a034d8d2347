// Puts what the page needs of xterm.js into vendor/. There is no bundler: the browser loads these files as they are.

import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';

const from = new URL('node_modules/@xterm/', import.meta.url);
const to = new URL('vendor/', import.meta.url);

const addons = ['fit', 'search', 'serialize', 'unicode-graphemes', 'web-links', 'webgl'].map((name) => `addon-${name}`);

// Named .js, because not every server knows the type of .mjs.
const modules = {
  'xterm/lib/xterm.mjs': 'xterm.js',
  ...Object.fromEntries(addons.map((name) => [`${name}/lib/${name}.mjs`, `${name}.js`])),
};
const files = {
  'xterm/css/xterm.css': 'xterm.css',
  'xterm/LICENSE': 'xterm.LICENSE',
  // The package of addon-serialize has none; it is a part of xterm.js.
  ...Object.fromEntries(addons.filter((name) => name !== 'addon-serialize').map((name) => [`${name}/LICENSE`, `${name}.LICENSE`])),
};

await rm(to, { recursive: true, force: true });
await mkdir(to);
for (const [source, name] of Object.entries(modules)) {
  const code = await readFile(new URL(source, from), 'utf8');
  // The source maps are not served; the comment would only earn a 404 in the developer tools.
  await writeFile(new URL(name, to), code.replace(/^\/\/# sourceMappingURL=.*\n?/m, ''));
  // For tsc, which else would read the minified code; not served.
  const types = `export * from '@xterm/${source.split('/')[0]}';\n`;
  await writeFile(new URL(name.replace('.js', '.d.ts'), to), types);
}
for (const [source, name] of Object.entries(files)) {
  await copyFile(new URL(source, from), new URL(name, to));
}
