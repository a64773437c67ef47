// Makes drop-by-rule.wasm of filter.js. A filter can open nothing, so every feature that would import
// something from the system is left out.

import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'filter.js',
  witPath: '../../../wit/0.1.0',
  worldName: 'narration-filter',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await writeFile('drop-by-rule.wasm', component);
