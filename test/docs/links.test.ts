/** Links within the repository lead somewhere, and commands name scripts that exist. */
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { blocksOf, fromRoot, type Page, proseOf, ROOT, readPages } from './pages.ts'

const LINK = /\[[^\]]*\]\(([^)\s]+)\)/g
const SCRIPT = /\bnpm (?:run ([\w:-]+)|(start|test)\b)/g

/** The anchors that GitHub makes of a page's headings. */
function anchorsOf(text: string): Set<string> {
  const headings = [...text.matchAll(/^#{1,6} (.+)$/gm)].map((match) => match[1]!)
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
}

async function checkLink(page: Page, target: string): Promise<void> {
  const [path, anchor] = target.split('#', 2) as [string, string?]
  const file = path === '' ? join(ROOT, page.path) : join(ROOT, dirname(page.path), path)
  assert.ok(!fromRoot(file).startsWith('..'), `${target} leaves the repository`)
  if (anchor === undefined) {
    // A folder may be linked to as well as a file.
    await readFile(file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EISDIR') throw error
    })
  } else {
    assert.ok(anchorsOf(await readFile(file, 'utf8')).has(anchor), `${target} names no heading`)
  }
}

const pages = await readPages()
const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { scripts: object }

describe('links and commands in the documentation', () => {
  for (const page of pages) {
    test(`links of ${page.path}`, async () => {
      const targets = [...proseOf(page).matchAll(LINK)].map((match) => match[1]!)
      for (const target of targets) if (!/^[a-z]+:/.test(target)) await checkLink(page, target)
    })

    test(`npm scripts of ${page.path}`, () => {
      const text = `${proseOf(page)}\n${blocksOf(page)
        .map((block) => block.code)
        .join('\n')}`
      for (const [, named, short] of text.matchAll(SCRIPT)) {
        const script = (named ?? short)!
        assert.ok(Object.hasOwn(scripts, script), `there is no script ${script}`)
      }
    })
  }

  test('every page of docs/ is in the table of contents', () => {
    const contents = pages.find((page) => page.path === join('docs', 'README.md'))!
    const linked = [...contents.text.matchAll(LINK)].map((match) => join('docs', match[1]!))
    const written = pages.map((page) => page.path).filter((path) => path.startsWith('docs') && path !== contents.path)
    assert.deepEqual(
      written.filter((path) => !linked.includes(path)),
      [],
    )
  })
})
