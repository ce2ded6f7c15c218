/** The rooms of `src/` import what the table in ARCHITECTURE.md allows, and nothing else. */
import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { describe, test } from 'node:test'
import { ROOT } from './pages.ts'

const SOURCE = join(ROOT, 'src')
const ROW = /^\| \[`src\/([\w.]+)`\]\([^)]*\) \|[^|]*\|([^|]*)\|$/gm
const IMPORT = /(?:from|import\()\s*'(\.[^']+)'/g

const text = await readFile(join(ROOT, 'ARCHITECTURE.md'), 'utf8')
const rooms = new Map(
  [...text.matchAll(ROW)].map(([, room, allowed]) => [
    room!,
    [...allowed!.matchAll(/`([\w.]+)`/g)].map((match) => match[1]!),
  ]),
)

/** What the files of a room import, as paths from `src/`. */
async function importsOf(room: string): Promise<{ file: string; imported: string }[]> {
  const found = room.endsWith('.ts') ? [room] : await readdir(join(SOURCE, room), { recursive: true })
  const files = room.endsWith('.ts') ? found : found.map((path) => join(room, path))
  const imports = files
    .filter((file) => file.endsWith('.ts'))
    .map(async (file) => {
      const source = await readFile(join(SOURCE, file), 'utf8')
      const paths = [...source.matchAll(IMPORT)].map((match) => join(SOURCE, dirname(file), match[1]!))
      return paths.map((path) => ({ file, imported: relative(SOURCE, path) }))
    })
  return (await Promise.all(imports)).flat()
}

describe('the table of rooms', () => {
  for (const [room, allowed] of rooms) {
    test(`imports of ${room}`, async () => {
      const wrong = (await importsOf(room)).filter(({ imported }) => {
        const target = imported.split(sep)[0]!
        return target !== room && target !== 'errors.ts' && !allowed.includes(target)
      })
      assert.deepEqual(wrong, [])
    })
  }

  test('has a row for everything in src/', async () => {
    assert.deepEqual([...rooms.keys()].sort(), (await readdir(SOURCE)).sort())
  })

  test('engines know nothing of each other, and others know only their index', async () => {
    const imports = (await Promise.all([...rooms.keys()].map(importsOf))).flat()
    const intruders = imports.filter(({ file, imported }) => {
      const [room, engine] = imported.split(sep)
      if (room !== 'engines' || file === join('engines', 'index.ts')) return false
      if (file.split(sep)[0] !== 'engines') return engine !== 'index.ts'
      const isShared = engine!.endsWith('.ts') && engine !== 'index.ts'
      return !isShared && file.split(sep)[1] !== engine
    })
    assert.deepEqual(intruders, [])
  })
})
