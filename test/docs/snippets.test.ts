/** TypeScript in the documentation is a copy of a region of a program that runs. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Block, blocksOf, ROOT, readPages } from './pages.ts'

const REFERENCE = /^<!-- snippet: (\S+?)(?:#(\S+))? -->$/

/** The lines between `// #region name` and the next `// #endregion`, or the whole file, dedented. */
function regionOf(source: string, name: string | undefined): string {
  const lines = source.trimEnd().split('\n')
  if (name === undefined) return source.trimEnd()
  const start = lines.findIndex((line) => line.trim() === `// #region ${name}`)
  assert.notEqual(start, -1, `there is no region ${name}`)
  const end = lines.findIndex((line, index) => index > start && line.trim() === '// #endregion')
  assert.notEqual(end, -1, `region ${name} has no end`)
  return dedent(lines.slice(start + 1, end)).trim()
}

function dedent(lines: readonly string[]): string {
  const indents = lines.filter((line) => line.trim() !== '').map((line) => line.length - line.trimStart().length)
  const indent = Math.min(...indents)
  return lines.map((line) => line.slice(indent)).join('\n')
}

async function check(block: Block): Promise<void> {
  const reference = REFERENCE.exec(block.before)
  assert.ok(reference, 'a line <!-- snippet: file#region --> must stand before the block')
  const source = await readFile(join(ROOT, reference[1]!), 'utf8')
  assert.equal(block.code, regionOf(source, reference[2]))
}

const pages = await readPages()
const snippets = pages.flatMap((page) =>
  blocksOf(page).flatMap((block) => (/^(ts|typescript|js)$/.test(block.language) ? [{ page, block }] : [])),
)

describe('snippets are copies of programs that run', () => {
  for (const { page, block } of snippets) test(`${page.path}:${block.line}`, () => check(block))

  test('there are snippets', () => assert.ok(snippets.length > 10))
})
