/**
 * Builds what the package ships: `node scripts/build.ts [folder]` compiles `src` and `test/conformance` to JavaScript
 * and declarations in `folder` (default `dist`), which is emptied first. The compiler turns `.ts` into `.js` in the
 * imports of JavaScript and leaves them as they are in declarations, where this does the same.
 */
import { spawnSync } from 'node:child_process'
import { globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '..')

function compile(folder: string): void {
  const compiler = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  const parameters = [compiler, '--project', join(root, 'tsconfig.build.json'), '--outDir', folder]
  const result = spawnSync(process.execPath, parameters, { stdio: 'inherit' })
  if (result.status !== 0) process.exit(result.status ?? 1)
}

function mendDeclarations(folder: string): void {
  for (const name of globSync('**/*.d.ts', { cwd: folder })) {
    const file = join(folder, name)
    const before = readFileSync(file, 'utf8')
    const after = before.replaceAll(/(from |import\()(['"])(\.[^'"]+)\.ts\2/g, '$1$2$3.js$2')
    if (after !== before) writeFileSync(file, after)
  }
}

const folder = resolve(process.argv[2] ?? join(root, 'dist'))
rmSync(folder, { recursive: true, force: true })
compile(folder)
mendDeclarations(folder)
